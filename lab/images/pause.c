/* Process 1 of a pod: keeps the pod's namespaces alive, collects what is orphaned into it, ends when asked to. */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

int main(void)
{
	sigset_t waited;
	int signal_number;

	sigemptyset(&waited);
	sigaddset(&waited, SIGCHLD);
	sigaddset(&waited, SIGINT);
	sigaddset(&waited, SIGTERM);
	sigprocmask(SIG_BLOCK, &waited, 0);
	for (;;) {
		if (sigwait(&waited, &signal_number) != 0)
			return 1;
		if (signal_number != SIGCHLD)
			return 0;
		while (waitpid(-1, 0, WNOHANG) > 0)
			;
	}
}
