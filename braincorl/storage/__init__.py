"""Files and folders that land whole or not at all, and are checked when they are read."""
