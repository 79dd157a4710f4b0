"""What every room may use and that knows none of them: durations, sealed secrets, and which addresses may be connected to."""
