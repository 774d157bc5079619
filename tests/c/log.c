/* log FOLDER: messages go to the callback that is set, up to its level, and nowhere else. */

#include "check.h"

typedef struct {
    int count;
    uint32_t gravest, slightest;
    int runtime, sampler;
} seen;

static void record(void *user, uint32_t level, const char *message)
{
    seen *seen = user;
    seen->count++;
    if (seen->count == 1 || level < seen->gravest)
        seen->gravest = level;
    if (seen->count == 1 || level > seen->slightest)
        seen->slightest = level;
    seen->runtime += strstr(message, "ONNX Runtime 1.") != NULL;
    seen->sampler += strstr(message, "sampler") != NULL;
}

/* The last message, and how many there were. */
typedef struct {
    int count;
    uint32_t level;
    char text[1024];
} last;

static void keep(void *user, uint32_t level, const char *message)
{
    last *last = user;
    last->count++;
    last->level = level;
    snprintf(last->text, sizeof last->text, "%s", message);
}

static int32_t cancel(void *user, uint64_t done, uint64_t total)
{
    (void)user, (void)done, (void)total;
    return 1;
}

/* Every call that fails says so, with the text that its caller gets; one that was cancelled does as it
 * was told. */
static void errors(const dwf_model *model)
{
    last last = {0};
    dwf_tensor_info tensor = {.struct_size = sizeof tensor};
    dwf_sampler_options options = {.struct_size = sizeof options, .threads = 100000};
    dwf_sampler *sampler = new_sampler(model), *none = NULL;
    dwf_buffer buffer = new_buffer(model, 1, sizeof(float)), small = buffer;
    small.size_bytes--;
    CHECK(dwf_set_log(keep, &last, DWF_LOG_ERROR) == DWF_OK);

    EXPECT(DWF_BUFFER_TOO_SMALL, "", dwf_sample(sampler, NULL, &small, ERR));
    CHECK(last.count == 1 && last.level == DWF_LOG_ERROR);
    CHECK(strstr(last.text, "DWF_BUFFER_TOO_SMALL") && strstr(last.text, err));
    EXPECT(DWF_INVALID_ARGUMENT, "100000", dwf_sampler_new(model, &options, &none, ERR));
    CHECK(last.count == 2 && strstr(last.text, err));
    /* For callers who take no text, too. */
    CHECK(dwf_model_get_tensor(model, 1000, &tensor, NULL, 0) == DWF_INVALID_ARGUMENT);
    CHECK(last.count == 3 && strstr(last.text, "1000"));
    CHECK(dwf_set_log(keep, &last, 9) == DWF_INVALID_ARGUMENT);
    CHECK(last.count == 4 && strstr(last.text, "9"));

    dwf_sample_options cancelled = {.struct_size = sizeof cancelled, .progress = cancel};
    EXPECT(DWF_CANCELLED, "", dwf_sample(sampler, &cancelled, &buffer, ERR));
    OK(dwf_sample(sampler, NULL, &buffer, ERR));
    CHECK(last.count == 4);
    CHECK(dwf_set_log(NULL, NULL, 0) == DWF_OK);
    dwf_sampler_free(sampler);
    free(buffer.data);
}

static void use(const dwf_model *model)
{
    dwf_sampler_free(new_sampler(model));
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    seen warnings = {0}, infos = {0}, others = {0};
    dwf_model *model = open_model(argv[1], "net");
    CHECK(dwf_set_log(record, &warnings, 0) == DWF_INVALID_ARGUMENT);
    CHECK(dwf_set_log(record, &warnings, 5) == DWF_INVALID_ARGUMENT);
    CHECK(dwf_set_log(record, &infos, DWF_LOG_INFO) == DWF_OK);
    use(model);
    CHECK(infos.runtime == 1 && infos.sampler == 1 && infos.slightest == DWF_LOG_INFO);
    CHECK(infos.gravest >= DWF_LOG_ERROR);

    int before = infos.count;
    CHECK(dwf_set_log(record, &others, DWF_LOG_DEBUG) == DWF_OK);
    use(model);
    CHECK(infos.count == before && others.sampler == 1);

    before = others.count;
    CHECK(dwf_set_log(record, &warnings, DWF_LOG_WARN) == DWF_OK);
    use(model);
    CHECK(others.count == before && warnings.slightest <= DWF_LOG_WARN);

    CHECK(dwf_set_log(record, &others, DWF_LOG_INFO) == DWF_OK);
    CHECK(dwf_set_log(NULL, NULL, 0) == DWF_OK);
    use(model);
    CHECK(others.count == before);
    errors(model);
    dwf_model_free(model);
    /* Left set on purpose: nothing may be logged after main. */
    CHECK(dwf_set_log(record, NULL, DWF_LOG_DEBUG) == DWF_OK);
    return 0;
}
