"""Host loops, one module each.  They know nothing of hypervisors, nor of each other."""
