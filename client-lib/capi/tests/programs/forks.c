/* Forks while threads use the client, and lets each child use it. Usage: forks SOCKET THREADS CHILDREN */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

static jobcred_client *client;
static atomic_int is_over;

static void get(int number)
{
    /* Many resources, so that the client has to make room, look up and ask. */
    char resource[40];
    jobcred_error *error;
    jobcred_token *token;
    snprintf(resource, sizeof resource, "https://r%d.example/", number % 50);
    token = jobcred_get_token(client, resource, NULL, &error);
    CHECK(token != NULL && error == NULL);
    CHECK(SAME(jobcred_token_access_token(token), "t0ken-of-the-double"));
    jobcred_token_free(token);
}

static void *ask(void *number)
{
    int i;
    for (i = (int)(size_t)number; !atomic_load(&is_over); i++) {
        get(i);
    }
    return NULL;
}

static void child(int number)
{
    pid_t grandchild;
    int status;
    /* Who hangs is ended by it. */
    alarm(60);
    get(number);
    get(number + 1);
    grandchild = fork();
    CHECK(grandchild >= 0);
    if (grandchild > 0) {
        CHECK(waitpid(grandchild, &status, 0) == grandchild);
        CHECK(status == 0);
        get(number);
    } else if (number % 2 == 0) {
        get(number);
    }
    jobcred_client_free(client);
    exit(0);
}

int main(int argc, char **argv)
{
    pthread_t threads[16];
    int count, children, i, status;

    CHECK(argc == 4);
    count = atoi(argv[2]);
    children = atoi(argv[3]);
    CHECK(count <= 16);
    client = client_at(argv[1], 0);
    get(0);
    for (i = 0; i < count; i++) {
        CHECK(pthread_create(&threads[i], NULL, ask, (void *)(size_t)(i * 100)) == 0);
    }
    for (i = 0; i < children; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            child(i);
        }
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(status == 0);
    }
    atomic_store(&is_over, 1);
    for (i = 0; i < count; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    /* What the children did has taken nothing from the parent. */
    get(0);
    jobcred_client_free(client);
    return 0;
}
