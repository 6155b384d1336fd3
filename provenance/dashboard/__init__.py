"""The dashboard and the HTTP API of a deployment: they read, make no file and send nothing."""
