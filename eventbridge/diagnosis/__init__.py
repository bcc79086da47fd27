"""Diagnosis of a bridge that runs: how it fares, which callback is slow, how late its host is, and a trace of it all.

Nothing of it costs anything while nobody asks: the dispatcher has no line for it.  While somebody does, the bridge's
dispatcher is another class (`observed`), which hands the core's own passes their events one by one and tells what came
of each.  What an application calls are the methods that `bridged` gives the bridge; the modules behind them are loaded
when they are called.
"""
