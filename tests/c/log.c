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
    dwf_model_free(model);
    /* Left set on purpose: nothing may be logged after main. */
    CHECK(dwf_set_log(record, NULL, DWF_LOG_DEBUG) == DWF_OK);
    return 0;
}
