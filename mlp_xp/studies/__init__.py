"""What the exercise sheet claims of gradients, of principal components and of k-means, shown on real data."""
