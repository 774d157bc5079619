/* The header alone, in two translation units, as C and as C++. */

#include <dwf.h>
#include <dwf.h>

const char *other_version(void);

int main(void)
{
    return dwf_version() == other_version() ? DWF_OK : DWF_INTERNAL;
}
