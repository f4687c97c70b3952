"""What voxels respond to, asked in words."""
