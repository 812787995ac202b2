// SPDX-License-Identifier: Apache-2.0
/* The CNI plugin that the container runtime runs: hands the request to the agent over its socket and prints the answer.
 * In C because it runs once per pod start, where starting Node would be most of the time. While the agent is away, ADD
 * answers "try again later" and DEL is written down for the agent to do when it is back. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/weir/agent.sock"
#define DEFAULT_QUEUE "/var/lib/weir/cni-deletes"
#define MAX_CONFIG (1 << 20)
#define MAX_ANSWER (4 << 20)
#define ANSWER_TIMEOUT_S 90

/* Error codes of the CNI specification. */
enum { CNI_INVALID_ENV = 4, CNI_IO_FAILURE = 5, CNI_DECODE_FAILURE = 6, CNI_TRY_AGAIN = 11, CNI_NOT_AVAILABLE = 50 };

static const char *const variables[] = { "CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH" };
static char version[32] = "1.1.0";

/* Prints text as the inside of a JSON string. */
static void print_escaped(const char *text)
{
	for (; *text; text++) {
		unsigned char c = *text;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
}

static int fail(int code, const char *message, const char *format, ...)
{
	char details[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(details, sizeof(details), format, args);
	va_end(args);
	printf("{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"", version, code);
	print_escaped(message);
	printf("\",\"details\":\"");
	print_escaped(details);
	printf("\"}\n");
	return 1;
}

/* Reads a file descriptor to its end into a fresh buffer with a terminating zero; NULL when it is larger than max. */
static char *read_all(int fd, size_t max, size_t *len)
{
	size_t room = 16384, have = 0;
	char *buffer = malloc(room + 1);

	while (buffer) {
		ssize_t n = read(fd, buffer + have, room - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		if (n == 0) {
			buffer[have] = 0;
			*len = have;
			return buffer;
		}
		have += n;
		if (have == room) {
			char *larger = room < max ? realloc(buffer, room * 2 + 1) : NULL;

			if (!larger)
				break;
			buffer = larger;
			room *= 2;
		}
	}
	free(buffer);
	return NULL;
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		data += n;
		len -= n;
	}
	return 0;
}

/* Answers of ours carry the version of the configuration. The agent parses it properly; here a look is enough. */
static void find_version(const char *config)
{
	const char *at = strstr(config, "\"cniVersion\"");
	size_t len;

	if (!at)
		return;
	at += strlen("\"cniVersion\"");
	at += strspn(at, " \t\r\n:");
	if (*at++ != '"')
		return;
	len = strspn(at, "0123456789.");
	if (at[len] == '"' && len && len < sizeof(version)) {
		memcpy(version, at, len);
		version[len] = 0;
	}
}

static int make_folders(const char *path)
{
	char part[512];
	size_t i;

	if (strlen(path) >= sizeof(part))
		return -1;
	for (i = 1; i <= strlen(path); i++) {
		if (path[i] != '/' && path[i] != 0)
			continue;
		memcpy(part, path, i);
		part[i] = 0;
		if (mkdir(part, 0700) && errno != EEXIST)
			return -1;
	}
	return 0;
}

/* One file per deletion, written whole or not at all: container, interface, network namespace, arguments, a line each. */
static int queue_delete(const char *folder, const char *container, const char *ifname)
{
	const char *netns = getenv("CNI_NETNS"), *args = getenv("CNI_ARGS");
	char path[1024], temporary[1100], text[8192];
	int fd, len;

	if (make_folders(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/%s-%s", folder, container, ifname);
	snprintf(temporary, sizeof(temporary), "%s.%d.tmp", path, getpid());
	len = snprintf(text, sizeof(text), "%s\n%s\n%s\n%s\n", container, ifname, netns ? netns : "", args ? args : "");
	if (len < 0 || (size_t)len >= sizeof(text))
		return -1;
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	if (write_all(fd, text, len) || fsync(fd) || close(fd) || rename(temporary, path)) {
		unlink(temporary);
		return -1;
	}
	return 0;
}

/* The agent may die while it answers: half an answer is none. It always says how long its body is. */
static int complete(const char *answer, size_t len)
{
	const char *body = strstr(answer, "\r\n\r\n"), *length = strcasestr(answer, "\r\ncontent-length:");

	if (strncmp(answer, "HTTP/1.", 7) || !body || !length || length > body)
		return 0;
	return (size_t)(answer + len - (body + 4)) == strtoul(length + strlen("\r\ncontent-length:"), NULL, 10);
}

/* Sends the request; the agent's answer, or NULL when the agent is not there or went away before it answered. */
static char *ask_agent(const char *path, const char *config, size_t config_len)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval timeout = { .tv_sec = ANSWER_TIMEOUT_S };
	char head[16384];
	size_t len = 0, i, answer_len;
	char *answer = NULL;
	int fd;

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return NULL;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		goto out;
	len = snprintf(head, sizeof(head), "POST /cni HTTP/1.1\r\nHost: weir\r\nConnection: close\r\nContent-Length: %zu\r\n", config_len);
	for (i = 0; i < sizeof(variables) / sizeof(*variables); i++) {
		const char *value = getenv(variables[i]);

		if (value && len < sizeof(head))
			len += snprintf(head + len, sizeof(head) - len, "X-%s: %s\r\n", variables[i], value);
	}
	if (len < sizeof(head))
		len += snprintf(head + len, sizeof(head) - len, "\r\n");
	if (len >= sizeof(head)) {
		errno = E2BIG;
		goto out;
	}
	if (write_all(fd, head, len) || write_all(fd, config, config_len))
		goto out;
	answer = read_all(fd, MAX_ANSWER, &answer_len);
	if (answer && !complete(answer, answer_len)) {
		free(answer);
		answer = NULL;
		errno = ECONNRESET;
	}
out:
	i = errno;
	close(fd);
	errno = i;
	return answer;
}

static int valid_name(const char *name)
{
	if (!name || !isalnum((unsigned char)*name) || strlen(name) > 200)
		return 0;
	return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == strlen(name);
}

int main(void)
{
	const char *command = getenv("CNI_COMMAND"), *container = getenv("CNI_CONTAINERID"), *ifname = getenv("CNI_IFNAME");
	const char *path = getenv("WEIR_AGENT_SOCKET"), *queue = getenv("WEIR_CNI_QUEUE");
	char *config, *answer, *body;
	size_t len, i;
	int status;

	if (!command) {
		fprintf(stderr, "weir-cni: a CNI plugin, run by the container runtime. CNI_COMMAND is not set.\n");
		return fail(CNI_INVALID_ENV, "CNI_COMMAND is not set", "this program is run by a container runtime");
	}
	if (!path)
		path = DEFAULT_SOCKET;
	if (!queue)
		queue = DEFAULT_QUEUE;
	config = read_all(0, MAX_CONFIG, &len);
	if (!config)
		return fail(CNI_DECODE_FAILURE, "cannot read the network configuration", "standard input is unreadable or larger than %d bytes", MAX_CONFIG);
	find_version(config);
	if (!strcmp(command, "VERSION")) {
		printf("{\"cniVersion\":\"%s\",\"supportedVersions\":[\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n", version);
		return 0;
	}
	for (i = 0; i < sizeof(variables) / sizeof(*variables); i++) {
		const char *value = getenv(variables[i]);

		if (value && strpbrk(value, "\r\n"))
			return fail(CNI_INVALID_ENV, "an environment variable has a line break", "%s", variables[i]);
	}
	answer = ask_agent(path, config, len);
	if (!answer) {
		int error = errno;

		if (!strcmp(command, "DEL")) {
			if (!valid_name(container) || !valid_name(ifname))
				return fail(CNI_INVALID_ENV, "CNI_CONTAINERID or CNI_IFNAME is missing or malformed", "DEL needs both");
			if (queue_delete(queue, container, ifname))
				return fail(CNI_IO_FAILURE, "the agent is away and the deletion cannot be written down", "%s: %s", queue, strerror(errno));
			return 0;
		}
		if (!strcmp(command, "STATUS"))
			return fail(CNI_NOT_AVAILABLE, "the Weir agent does not answer", "%s: %s", path, strerror(error));
		return fail(CNI_TRY_AGAIN, "the Weir agent does not answer: try again later", "%s: %s", path, strerror(error));
	}
	status = atoi(answer + strcspn(answer, " "));
	body = strstr(answer, "\r\n\r\n");
	body = body ? body + 4 : answer + strlen(answer);
	if (status != 200 && !*body)
		return fail(CNI_IO_FAILURE, "the Weir agent gave no answer", "HTTP status %d", status);
	fputs(body, stdout);
	if (fflush(stdout))
		return 1;
	return status == 200 ? 0 : 1;
}
