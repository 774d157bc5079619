/* The second translation unit of header.c. */

#include <dwf.h>

const char *other_version(void);

const char *other_version(void)
{
    return dwf_version();
}
