/* What the header promises of errors, NULL and bad text. Usage: contract SOCKET. The agent there answers with an error of
 * the kind that the resource is called, hangs for "hang", and has tokens for all else. */
#include <errno.h>

#include "support.h"

static const char *VALID = "https://storage.azure.com/";

/* An error of this kind, and nothing else, comes of the call. */
static void expect(const jobcred_token *token, jobcred_error *error, jobcred_kind kind, const char *code)
{
    CHECK(token == NULL);
    CHECK(error != NULL);
    if (jobcred_error_kind(error) != kind) {
        fprintf(stderr, "kind %d: %s\n", (int)jobcred_error_kind(error), jobcred_error_message(error));
    }
    CHECK(jobcred_error_kind(error) == kind);
    CHECK(SAME(jobcred_error_code(error), code));
    CHECK(strlen(jobcred_error_message(error)) > 0);
    CHECK(errno == EXDEV);
    jobcred_error_free(error);
}

static void invalid(const jobcred_token *token, jobcred_error *error, const char *word)
{
    CHECK(error != NULL && strstr(jobcred_error_message(error), word) != NULL);
    expect(token, error, JOBCRED_KIND_INVALID_REQUEST, "invalid_request");
}

static void kinds(const char *path)
{
    static const struct {
        const char *code;
        jobcred_kind kind;
    } all[] = {
        {"invalid_request", JOBCRED_KIND_INVALID_REQUEST},
        {"denied", JOBCRED_KIND_DENIED},
        {"unavailable", JOBCRED_KIND_UNAVAILABLE},
        {"rejected", JOBCRED_KIND_REJECTED},
        {"grant_ended", JOBCRED_KIND_GRANT_ENDED},
        {"anonymous", JOBCRED_KIND_ANONYMOUS},
        {"transient", JOBCRED_KIND_TRANSIENT},
        {"internal", JOBCRED_KIND_INTERNAL},
    };
    jobcred_client *client = client_at(path, 0);
    jobcred_error *error;
    jobcred_registry_credential *credential;
    size_t i;

    for (i = 0; i < sizeof all / sizeof all[0]; i++) {
        /* Not NULL before, as of a caller who forgot to set it. */
        error = (jobcred_error *)&error;
        CHECK(jobcred_get_token(client, all[i].code, NULL, &error) == NULL);
        CHECK(jobcred_error_retry_after(error) == 3);
        CHECK(SAME(jobcred_error_hint(error), "look there"));
        CHECK(SAME(jobcred_error_request_id(error), "r1"));
        expect(NULL, error, all[i].kind, all[i].code);
        CHECK(jobcred_get_token(client, all[i].code, NULL, NULL) == NULL);

        credential = jobcred_get_registry_credential(client, all[i].code, &error);
        CHECK(credential == NULL);
        expect(NULL, error, all[i].kind, all[i].code);
        CHECK(!jobcred_erase_registry_credential(client, all[i].code, &error));
        expect(NULL, error, all[i].kind, all[i].code);
    }
    /* A kind that this version does not know. */
    CHECK(jobcred_get_token(client, "brand_new", NULL, &error) == NULL);
    expect(NULL, error, JOBCRED_KIND_INTERNAL, "internal");
    /* No answer of an agent. */
    CHECK(jobcred_get_token(client, "garbage", NULL, &error) == NULL);
    expect(NULL, error, JOBCRED_KIND_INTERNAL, "internal");
    jobcred_client_free(client);
}

static void silence_and_absence(const char *path)
{
    jobcred_client *client = client_at(path, 200);
    jobcred_error *error;
    jobcred_token *token = jobcred_get_token(client, "hang", NULL, &error);
    expect(token, error, JOBCRED_KIND_TRANSIENT, "transient");
    jobcred_client_free(client);

    client = client_at("/nowhere/agent.sock", 0);
    token = jobcred_get_token(client, VALID, NULL, &error);
    CHECK(strstr(jobcred_error_message(error), "/nowhere/agent.sock") != NULL);
    CHECK(jobcred_error_retry_after(error) == -1);
    CHECK(jobcred_error_request_id(error) == NULL);
    expect(token, error, JOBCRED_KIND_TRANSIENT, "transient");
    jobcred_client_free(client);
}

static void bad_arguments(const char *path)
{
    static char endless[64 * 1024];
    jobcred_client *client = client_at(path, 0);
    jobcred_options *options = jobcred_options_new();
    jobcred_error *error;
    jobcred_token *token;

    memset(endless, 'x', sizeof endless - 1);
    token = jobcred_get_token(NULL, VALID, NULL, &error);
    invalid(token, error, "client is NULL");
    token = jobcred_get_token(client, NULL, NULL, &error);
    invalid(token, error, "resource is NULL");
    token = jobcred_get_token_for_scope(client, NULL, NULL, &error);
    invalid(token, error, "scope is NULL");
    token = jobcred_get_token(client, "", NULL, &error);
    invalid(token, error, "empty");
    token = jobcred_get_token(client, "https://\xff\xfe/", NULL, &error);
    invalid(token, error, "UTF-8");
    token = jobcred_get_token(client, endless, NULL, &error);
    invalid(token, error, "longer");
    CHECK(jobcred_get_registry_credential(client, NULL, &error) == NULL);
    invalid(NULL, error, "server is NULL");
    CHECK(!jobcred_erase_registry_credential(NULL, "myreg.azurecr.io", &error));
    invalid(NULL, error, "client is NULL");

    jobcred_options_set_client_id(options, "one");
    jobcred_options_set_object_id(options, "two");
    token = jobcred_get_token(client, VALID, options, &error);
    invalid(token, error, "one identity");
    jobcred_options_set_object_id(options, "\xff");
    token = jobcred_get_token(client, VALID, options, &error);
    invalid(token, error, "object id is not UTF-8");
    jobcred_options_set_client_id(options, NULL);
    jobcred_options_set_object_id(options, NULL);
    token = jobcred_get_token(client, VALID, options, &error);
    CHECK(token != NULL && error == NULL);
    jobcred_token_free(token);

    jobcred_options_free(options);
    jobcred_client_free(client);
}

static void every_option_arrives(const char *path)
{
    jobcred_client *client = client_at(path, 0);
    jobcred_options *options = jobcred_options_new();
    jobcred_error *error;
    jobcred_token *token;
    jobcred_registry_credential *credential;

    jobcred_options_set_resource_id(options, "/subscriptions/s");
    jobcred_options_set_tenant_id(options, "tenant");
    jobcred_options_set_claims(options, "{\"access_token\":{}}");
    jobcred_options_set_min_validity(options, 600);
    token = jobcred_get_token_for_scope(client, "https://vault.azure.net/.default", options, &error);
    CHECK(token != NULL && error == NULL);
    CHECK(SAME(jobcred_token_access_token(token), "t0ken-of-the-double"));
    CHECK(SAME(jobcred_token_type(token), "Bearer"));
    CHECK(SAME(jobcred_token_resource(token), "r"));
    CHECK(jobcred_token_client_id(token) == NULL);
    CHECK(jobcred_token_expires_on(token) == 4102444800);
    CHECK(jobcred_token_refresh_on(token) == 4102441200);
    jobcred_token_free(token);

    credential = jobcred_get_registry_credential(client, "myreg.azurecr.io", &error);
    CHECK(credential != NULL && error == NULL);
    CHECK(SAME(jobcred_registry_credential_server(credential), "myreg.azurecr.io"));
    CHECK(SAME(jobcred_registry_credential_username(credential), "u"));
    CHECK(SAME(jobcred_registry_credential_secret(credential), "s3cret-of-the-double"));
    CHECK(jobcred_registry_credential_expires_on(credential) == 4102444800);
    CHECK(jobcred_registry_credential_refresh_on(credential) == 4102441200);
    jobcred_registry_credential_free(credential);
    CHECK(jobcred_erase_registry_credential(client, "myreg.azurecr.io", &error));
    CHECK(error == NULL);

    jobcred_options_free(options);
    jobcred_client_free(client);
}

static void null_is_fine(void)
{
    jobcred_settings_set_socket(NULL, "x");
    jobcred_settings_set_agent_uid(NULL, 1);
    jobcred_settings_set_timeout(NULL, 1);
    jobcred_settings_free(NULL);
    jobcred_client_free(NULL);
    jobcred_options_set_client_id(NULL, "x");
    jobcred_options_set_object_id(NULL, "x");
    jobcred_options_set_resource_id(NULL, "x");
    jobcred_options_set_tenant_id(NULL, "x");
    jobcred_options_set_claims(NULL, "x");
    jobcred_options_set_min_validity(NULL, 1);
    jobcred_options_free(NULL);
    CHECK(jobcred_token_access_token(NULL) == NULL);
    CHECK(jobcred_token_type(NULL) == NULL);
    CHECK(jobcred_token_resource(NULL) == NULL);
    CHECK(jobcred_token_client_id(NULL) == NULL);
    CHECK(jobcred_token_expires_on(NULL) == 0);
    CHECK(jobcred_token_refresh_on(NULL) == 0);
    jobcred_token_free(NULL);
    CHECK(jobcred_registry_credential_server(NULL) == NULL);
    CHECK(jobcred_registry_credential_username(NULL) == NULL);
    CHECK(jobcred_registry_credential_secret(NULL) == NULL);
    CHECK(jobcred_registry_credential_expires_on(NULL) == 0);
    CHECK(jobcred_registry_credential_refresh_on(NULL) == 0);
    jobcred_registry_credential_free(NULL);
    CHECK(jobcred_error_kind(NULL) == JOBCRED_KIND_NONE);
    CHECK(jobcred_error_code(NULL) == NULL);
    CHECK(jobcred_error_message(NULL) == NULL);
    CHECK(jobcred_error_hint(NULL) == NULL);
    CHECK(jobcred_error_request_id(NULL) == NULL);
    CHECK(jobcred_error_retry_after(NULL) == -1);
    jobcred_error_free(NULL);
    CHECK(strlen(jobcred_version()) > 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    errno = EXDEV;
    kinds(argv[1]);
    silence_and_absence(argv[1]);
    bad_arguments(argv[1]);
    every_option_arrives(argv[1]);
    null_is_fine();
    CHECK(errno == EXDEV);
    return 0;
}
