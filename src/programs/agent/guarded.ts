// Work that nobody waits for: what fails (a full disk, a device that goes at that moment) must not end the agent.
import { errorText } from '../../core/errors.ts';
import type { Log } from '../log.ts';

/** Wraps such work: it never throws, and the log says what could not be done. */
export function guardedBy(log: Log) {
  return (what: string, work: () => void) => () => {
    try {
      work();
    } catch (error) {
      log.error(`could not ${what}`, { error: errorText(error) });
    }
  };
}
