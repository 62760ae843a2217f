"""k-means on any array library: distances, Lloyd's two steps, seeding."""
