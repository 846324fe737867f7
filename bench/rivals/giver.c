/*
 * The least that a process can do to hand TCP connections over, as a floor to measure others against: accept, look at
 * the first bytes, pass the socket to another process, forget it. One thread, blocking calls.
 *
 * Do not use it. Nobody confirms that a connection has arrived: when the taker dies, or has no descriptors left, the
 * connections on their way are lost and nobody learns of it. A client that sends nothing stops all others.
 *
 * usage: giver PORT SOCKET HOST
 *
 * Connections to 127.0.0.1:PORT whose first bytes name HOST, in a Host header or as the server name of a ClientHello,
 * go to the process that listens at the Unix stream socket SOCKET. Others are closed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* listen_at returns a socket from which accept returns connections that have sent something. */
static int listen_at(const char *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	int on = 1, seconds = 5;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket");
	at.sin_port = htons((unsigned short)atoi(port));
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
		fail("SO_REUSEADDR");
	/* One wakeup for connection and request together: tcp(7). */
	if (setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds) < 0)
		fail("TCP_DEFER_ACCEPT");
	if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0)
		fail("bind");
	if (listen(fd, 4096) < 0)
		fail("listen");
	return fd;
}

static int connect_to(const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket");
	if (strlen(path) >= sizeof to.sun_path) {
		fprintf(stderr, "the path is too long: %s\n", path);
		exit(1);
	}
	strcpy(to.sun_path, path);
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		fail("connect");
	return fd;
}

/* names says whether the first bytes that client has sent name host. They stay where they are. */
static int names(int client, const char *host)
{
	char head[4096];
	ssize_t n = recv(client, head, sizeof head, MSG_PEEK);

	if (n < 0) {
		/* The kernel stops to wait for the request after some seconds, and gives the connection out as it is. */
		struct pollfd p = { .fd = client, .events = POLLIN };

		poll(&p, 1, 1000);
		n = recv(client, head, sizeof head, MSG_PEEK);
	}
	return n > 0 && memmem(head, (size_t)n, host, strlen(host)) != NULL;
}

/* give passes client over the channel, with one byte, without which a stream carries no descriptor: unix(7). */
static void give(int channel, int client)
{
	union { /* aligned as a cmsghdr has to be: cmsg(3) */
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	char byte = 0;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control.bytes,
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &client, sizeof client);
	if (sendmsg(channel, &msg, MSG_NOSIGNAL) != 1)
		fail("sendmsg");
}

int main(int argc, char **argv)
{
	int listener, channel;

	if (argc != 4) {
		fprintf(stderr, "usage: giver PORT SOCKET HOST\n");
		return 1;
	}
	channel = connect_to(argv[2]);
	listener = listen_at(argv[1]);
	for (;;) {
		/* Not blocking is what the taker wants. It is a property of the socket itself, so it goes along. */
		int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (client < 0) {
			perror("accept4"); /* of this one connection: it was reset */
			continue;
		}
		if (names(client, argv[3]))
			give(channel, client);
		close(client);
	}
}
