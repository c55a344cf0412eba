"""Training of the models that come with the package: one program per model."""
