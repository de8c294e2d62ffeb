/* Gets a token for a resource and says until when it is good; the token itself goes nowhere but into the request it is for.
 *
 *     cc token.c $(pkg-config --cflags --libs jobcred) -o token
 *     jobcred run -- ./token https://storage.azure.com/
 *
 * Usage: token RESOURCE [CLIENT_ID]
 */
#include <stdio.h>
#include <string.h>

#include <jobcred.h>

/* Says what went wrong. Returns an exit status: 75 (EX_TEMPFAIL) where another try makes sense, else 1. */
static int complain(const jobcred_error *error)
{
    fprintf(stderr, "no token (%s): %s\n", jobcred_error_code(error), jobcred_error_message(error));
    if (jobcred_error_hint(error) != NULL) {
        fprintf(stderr, "hint: %s\n", jobcred_error_hint(error));
    }
    if (jobcred_error_request_id(error) != NULL) {
        fprintf(stderr, "in the agent's log: request %s\n", jobcred_error_request_id(error));
    }
    return jobcred_error_kind(error) == JOBCRED_KIND_TRANSIENT ? 75 : 1;
}

int main(int argc, char **argv)
{
    jobcred_client *client;
    jobcred_options *options;
    jobcred_token *token;
    jobcred_error *error = NULL;
    int status = 0;

    if (argc < 2) {
        fprintf(stderr, "usage: %s RESOURCE [CLIENT_ID]\n", argv[0]);
        return 2;
    }

    client = jobcred_client_new(NULL);
    options = jobcred_options_new();
    if (argc > 2) {
        jobcred_options_set_client_id(options, argv[2]);
    }
    /* An upload that takes ten minutes needs a token that lives as long. */
    jobcred_options_set_min_validity(options, 600);

    token = jobcred_get_token(client, argv[1], options, &error);
    if (token != NULL) {
        printf("a %s token of %lu bytes for %s, good until %lld\n", jobcred_token_type(token),
               (unsigned long)strlen(jobcred_token_access_token(token)), jobcred_token_resource(token),
               (long long)jobcred_token_expires_on(token));
    } else {
        status = complain(error);
    }

    jobcred_token_free(token);
    jobcred_error_free(error);
    jobcred_options_free(options);
    jobcred_client_free(client);
    return status;
}
