/* What the test programs have in common. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jobcred.h>

/* Ends the program with the line that was not as it should be. */
#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);   \
            abort();                                                                  \
        }                                                                             \
    } while (0)

#define SAME(one, other) ((one) != NULL && strcmp((one), (other)) == 0)

/* A client of the agent at a path; 0 for the usual timeout. */
static jobcred_client *client_at(const char *path, unsigned timeout)
{
    jobcred_client *client;
    jobcred_settings *settings = jobcred_settings_new();
    jobcred_settings_set_socket(settings, path);
    jobcred_settings_set_timeout(settings, timeout);
    client = jobcred_client_new(settings);
    jobcred_settings_free(settings);
    CHECK(client != NULL);
    return client;
}

#endif
