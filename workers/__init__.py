"""Celery workers: a task decodes, calls one use case and maps the error."""
