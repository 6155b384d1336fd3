"""What an operator watches: figures for Prometheus, readiness, and traces."""
