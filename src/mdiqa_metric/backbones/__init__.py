"""Networks that turn an image into feature maps or tokens; one file a family."""
