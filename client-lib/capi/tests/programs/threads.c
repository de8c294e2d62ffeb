/* One client, many threads; a thread that is cancelled in a call; a connection that the agent closed between two calls.
 * Usage: threads SOCKET ROUNDS */
#include <pthread.h>
#include <signal.h>

#include "support.h"

enum { THREADS = 8, RESOURCES = 3 };

static jobcred_client *client;
static int rounds;

static void *ask(void *number)
{
    static const char *resources[RESOURCES] = {"https://storage.azure.com/", "https://vault.azure.net/", "denied"};
    int i;
    for (i = 0; i < rounds; i++) {
        int at = (i + (int)(size_t)number) % RESOURCES;
        jobcred_error *error = NULL;
        jobcred_token *token = jobcred_get_token(client, resources[at], NULL, &error);
        if (at == RESOURCES - 1) {
            CHECK(token == NULL && jobcred_error_kind(error) == JOBCRED_KIND_DENIED);
        } else {
            CHECK(token != NULL && error == NULL);
            CHECK(SAME(jobcred_token_access_token(token), "t0ken-of-the-double"));
        }
        jobcred_token_free(token);
        jobcred_error_free(error);
    }
    return NULL;
}

static void *hang(void *path)
{
    jobcred_client *own = client_at((const char *)path, 300);
    jobcred_error *error = NULL;
    jobcred_token *token;
    pthread_cancel(pthread_self());
    token = jobcred_get_token(own, "hang", NULL, &error);
    CHECK(token == NULL && jobcred_error_kind(error) == JOBCRED_KIND_TRANSIENT);
    jobcred_error_free(error);
    jobcred_client_free(own);
    pthread_testcancel();
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    void *result;
    size_t i;

    CHECK(argc == 3);
    /* As in most programs: whoever writes to a closed connection dies of it. */
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    rounds = atoi(argv[2]);
    client = client_at(argv[1], 0);
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, ask, (void *)i) == 0);
    }
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }

    CHECK(pthread_create(&threads[0], NULL, hang, argv[1]) == 0);
    CHECK(pthread_join(threads[0], &result) == 0);
    CHECK(result == PTHREAD_CANCELED);

    for (i = 0; i < 3; i++) {
        jobcred_token *token = jobcred_get_token(client, i % 2 == 0 ? "closing" : "closing-too", NULL, NULL);
        CHECK(token != NULL);
        jobcred_token_free(token);
    }
    jobcred_client_free(client);
    return 0;
}
