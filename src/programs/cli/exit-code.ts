// From an error to the exit status that scripts see.
import { type ErrorCode, WeirError } from '../../core/errors.ts';
import { type ExitCode, exitCodes } from '../../core/exit-codes.ts';

const byCode: Partial<Record<ErrorCode, ExitCode>> = {
  AGENT_UNREACHABLE: exitCodes.unreachable,
  CONFIG_INVALID: exitCodes.usage,
  IP_INVALID: exitCodes.usage,
  KERNEL_UNSUPPORTED: exitCodes.notPermitted,
  LABEL_INVALID: exitCodes.usage,
  NOT_FOUND: exitCodes.notFound,
  NOT_ROOT: exitCodes.notPermitted,
};

/** The exit status for anything that was thrown. */
export function exitCodeOf(thrown: unknown): ExitCode {
  return (thrown instanceof WeirError ? byCode[thrown.code] : undefined) ?? exitCodes.failed;
}
