"""What operators watch: logs, a line for each request, figures and traces. May import serving and engines."""
