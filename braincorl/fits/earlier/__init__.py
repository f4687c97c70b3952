"""Earlier people: their fits, read one after the other, and what is remembered of them for the next person."""
