"""People on the cortical surface and in grayordinates."""
