"""What the estimators share: how they take arrays of any library, and how scikit-learn's conventions are kept."""
