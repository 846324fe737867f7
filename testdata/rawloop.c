// The floor that BenchmarkCPU measures package usher against: the same loop with no promise at all. A giver
// process sends each of N accepted TCP connections to a taker process, by sendmsg with SCM_RIGHTS and a
// payload of 16 bytes, and closes it; the taker receives it and closes it. The client's ends stay open in a
// third process, so that either side's close costs what it costs in earnest.
//
// usage: rawloop N; prints the CPU time of giver and taker together in ns for each handover.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static double cpu(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e9 + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e3;
}

static void client(int port, int n)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	for (int i = 0; i < n; i++) {
		int s = socket(AF_INET, SOCK_STREAM, 0);
		if (s < 0 || connect(s, (struct sockaddr *)&a, sizeof a) < 0)
			err(1, "connect");
	}
	pause();
}

static void taker(int channel, int n, double *spent)
{
	double from = cpu();
	for (int i = 0; i < n; i++) {
		char payload[16], control[CMSG_SPACE(sizeof(int))];
		struct iovec io = {payload, sizeof payload};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
		if (recvmsg(channel, &m, MSG_CMSG_CLOEXEC) != sizeof payload)
			err(1, "recvmsg");
		int fd;
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
		close(fd);
	}
	*spent = cpu() - from;
	exit(0);
}

int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 0;
	if (n < 1)
		errx(2, "usage: rawloop N");
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	double *spent = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	int l = socket(AF_INET, SOCK_STREAM, 0), channel[2];
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	if (bind(l, (struct sockaddr *)&a, sizeof a) < 0 || listen(l, 1024) < 0 || getsockname(l, (struct sockaddr *)&a, &len) < 0)
		err(1, "listen");
	pid_t c = fork();
	if (c == 0) {
		close(l);
		client(a.sin_port, n);
	}
	int *conns = calloc(n, sizeof *conns);
	socketpair(AF_UNIX, SOCK_STREAM, 0, channel);
	pid_t t = 0;
	for (int i = 0; i < n; i++) {
		if (i == 0 && (t = fork()) == 0) { // before any connection is here, so that it has no copies
			close(l);
			close(channel[0]);
			taker(channel[1], n, spent);
		}
		if ((conns[i] = accept(l, 0, 0)) < 0)
			err(1, "accept");
	}
	close(channel[1]);

	double from = cpu();
	for (int i = 0; i < n; i++) {
		char payload[16] = "0123456789abcde", control[CMSG_SPACE(sizeof(int))] = {0};
		struct iovec io = {payload, sizeof payload};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &conns[i], sizeof(int));
		if (sendmsg(channel[0], &m, 0) != sizeof payload)
			err(1, "sendmsg");
		close(conns[i]);
	}
	double given = cpu() - from;
	int status;
	if (waitpid(t, &status, 0) != t || status != 0)
		errx(1, "the taker failed");
	kill(c, SIGKILL);
	printf("%.0f\n", (given + *spent) / n);
	return 0;
}
