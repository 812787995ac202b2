// From the kernel's monotonic nanoseconds to the time of day. The offset is measured again and again, because the time
// of day is steered; it moves only when it is off by more than measuring itself can explain, so that order is kept.

/** Converts times. */
export interface WallClock {
  /** Measures the offset again. */
  calibrate(): void;
  /** The time of day of a monotonic time; `seconds` since the epoch, `nanos` below a second. */
  at(monotonicNs: number): { seconds: number; nanos: number };
}

const toleranceNs = 2e6;

/** Makes a clock; both sources are handed in by tests. */
export function createWallClock(
  monotonicNs: () => number = () => Number(process.hrtime.bigint()),
  wallMs: () => number = () => performance.timeOrigin + performance.now(),
): WallClock {
  let offsetSeconds = 0;
  let offsetNanos = 0;
  const clock: WallClock = {
    calibrate() {
      const mono = monotonicNs();
      const wall = wallMs();
      const current = clock.at(mono);
      const errorNs = wall * 1e6 - (current.seconds * 1e9 + current.nanos);
      if (Math.abs(errorNs) < toleranceNs) return;
      const wallSeconds = Math.floor(wall / 1000);
      const monoSeconds = Math.floor(mono / 1e9);
      offsetSeconds = wallSeconds - monoSeconds;
      offsetNanos = Math.round((wall - wallSeconds * 1000) * 1e6 - (mono - monoSeconds * 1e9));
    },
    at(ns) {
      const whole = Math.floor(ns / 1e9);
      let seconds = whole + offsetSeconds;
      let nanos = Math.floor(ns - whole * 1e9 + offsetNanos);
      while (nanos < 0) {
        nanos += 1e9;
        seconds--;
      }
      while (nanos >= 1e9) {
        nanos -= 1e9;
        seconds++;
      }
      return { seconds, nanos };
    },
  };
  clock.calibrate();
  return clock;
}
