"""What a request meets and what it is answered with."""
