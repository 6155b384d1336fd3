"""What an operator asks of a whole deployment, and does with it."""
