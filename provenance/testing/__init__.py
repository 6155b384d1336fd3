"""Fakes that ship beside their interfaces and pass the same contract suite."""
