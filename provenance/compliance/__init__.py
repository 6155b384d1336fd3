"""What a run's records say to the requirements of a framework, and what they leave to a person."""
