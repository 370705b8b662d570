"""A stand-in for an accelerator: a queue in virtual time, which the host fills and goes on, and torch's view of it."""

from types import SimpleNamespace


class Accelerator:
    """Host and device each have a time; the device does what was issued in turn, and waits where there is nothing."""

    def __init__(self):
        self.host = 0.0
        self.busy_until = 0.0
        self.synchronised = 0
        self.peak = 0
        accelerator = SimpleNamespace(
            synchronize=self._synchronize,
            reset_peak_memory_stats=lambda: setattr(self, "peak", 0),
            max_memory_allocated=lambda: self.peak,
        )
        self.torch = SimpleNamespace(Event=lambda enable_timing: Event(self, enable_timing), accelerator=accelerator)
        """What the clock asks of torch."""

    def issue(self, seconds, *, launching=0.0):
        """Work of `seconds` on the device, which the host takes `launching` to issue."""
        self.host += launching
        self.busy_until = max(self.busy_until, self.host) + seconds
        self.peak = max(self.peak, 1 << 30)

    def wait_until(self, moment):
        """The host waits."""
        self.host = max(self.host, moment)

    def _synchronize(self):
        self.synchronised += 1
        self.wait_until(self.busy_until)


class Event:
    """A point behind what was issued."""

    def __init__(self, accelerator, enable_timing):
        assert enable_timing
        self._accelerator = accelerator
        self.moment = None

    def record(self):
        self.moment = max(self._accelerator.busy_until, self._accelerator.host)

    def synchronize(self):
        self._accelerator.wait_until(self.moment)

    def elapsed_time(self, end):
        """Milliseconds; as in torch, both must have happened."""
        assert max(self.moment, end.moment) <= self._accelerator.host, "an event that has not happened was read"
        return 1e3 * (end.moment - self.moment)
