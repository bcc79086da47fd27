"""The stress engine: random operations and planted faults on one host loop, and an oracle that judges every call.

Two kinds of rounds.  A *scripted* one (`script`, `scripted_round`, `slots`) is wholly determined by its seed: threads
take their steps in lockstep and the clock is a fake one, so what fails can be shrunk (`shrink`) and run again.  A
*racing* one (`eventbridge.stress.racing`) lets threads run as they like, with `hazards` and `faults` among them; only
its operations are determined by the seed.  `worker` alternates them in a process of a host's own; `supervisor` starts
those processes and minds them.
"""
