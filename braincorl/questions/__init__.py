"""What encoders are asked: are they better than chance, than others, what explains what, which image was seen."""
