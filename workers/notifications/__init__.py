"""Who is told what happens: what stands becomes incidents, incidents become messages, and messages are sent."""
