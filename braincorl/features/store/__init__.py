"""Tables of features, and the files that hold them."""
