"""A hypervisor, with callbacks on a loop that has no tasks, and with results on a thread.

Of the simulated one, which needs nothing; or of yours, and of a domain of yours that runs, which is suspended and
resumed: python examples/connection_callbacks.py qemu:///system web-1
"""

import argparse
import threading

import eventbridge


class Show:
    """Each step begins the next; every callback is called on the loop's thread."""

    def __init__(self, hv, name):
        self.hv, self.name = hv, name
        hv.subscribe(lambda event: print(f"event: {event}", flush=True))
        self.then(hv.opened, self.opened)

    def then(self, call, step):
        call.on_done(lambda call: step(call.result()) if call.error is None else self.failed(call.error))

    def failed(self, error):
        print(error, flush=True)
        self.hv.close()

    def opened(self, hv):
        print(f"{len(hv.known)} domains", flush=True)
        self.then(hv.domain(self.name), self.found)

    def found(self, domain):
        if domain.state == "stopped":
            self.then(domain.start(), lambda _: self.found(domain))
        else:
            self.then(domain.suspend(), lambda _: threading.Thread(target=self.elsewhere, args=(domain,)).start())

    def elsewhere(self, domain):
        """A thread may wait, for as long as the loop goes on."""
        print(f"on a thread: it is {domain.info().result(timeout=30).state}", flush=True)
        domain.resume().result(timeout=30)
        self.hv.close()


def main(uri, name):
    with eventbridge.Bridge("select") as bridge:
        show = Show(eventbridge.open(uri, bridge), name)
        bridge.run(until=bridge.is_empty)
        print(f"{show.hv.state}, and nothing is left", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Suspend a domain and resume it.")
    parser.add_argument("uri", nargs="?", default="sim:///default?events=0", help="the hypervisor (%(default)s)")
    parser.add_argument("domain", nargs="?", default="simulated-0", help="its name or UUID (%(default)s)")
    given = parser.parse_args()
    main(given.uri, given.domain)
