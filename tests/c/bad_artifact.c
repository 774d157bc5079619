/* bad_artifact PATH STATUS TEXT...: opening PATH fails with STATUS and every TEXT. */

#include "check.h"

int main(int argc, char **argv)
{
    dwf_model *model = (dwf_model *)&argc;
    CHECK(argc > 3);
    dwf_status status = dwf_model_open(argv[1], NULL, &model, ERR);
    CHECK(model == NULL);
    CHECK(status == atoi(argv[2]));
    for (int i = 3; i < argc; i++)
        if (!strstr(err, argv[i]))
            check_failed(__FILE__, __LINE__, argv[i]);
    CHECK(dwf_model_open(argv[1], NULL, &model, NULL, 0) == status);
    return 0;
}
