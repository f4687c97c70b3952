"""Ridge and evidence in closed form, as pure functions: one dialect for encoders, memory and attention."""
