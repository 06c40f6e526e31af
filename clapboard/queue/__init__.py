"""Celery: the app, its queues and transports, and the pace of the work in them."""
