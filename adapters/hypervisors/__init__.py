"""Hypervisors, one module or small package each.  They know nothing of host loops, nor of each other."""
