"""What the build of the site makes from the code: pages of cards, of the command line and of names; the gallery."""
