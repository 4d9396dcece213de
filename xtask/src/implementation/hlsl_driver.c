/* Compiles HLSL files with DXC or FXC, many in one process: starting Wine takes longer than compiling.
 *
 * hlsl_driver dxc|fxc LIBRARY TARGET < names
 *
 * LIBRARY is dxcompiler.dll or d3dcompiler_47.dll; the entry point is main and the options are those of wgpu's
 * release builds. Prints the library's version, then for every name read one line: the name, a tab, and OK or
 * the error with its line ends escaped. The name is printed before compiling, so that a crash has a name. */

#define COBJMACROS
#include <windows.h>
#include <d3dcompiler.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is needed of dxcapi.h, which MinGW lacks. A method's place in its table is what counts. */
typedef struct { const void *text; size_t size; UINT encoding; } DxcBuffer;
typedef struct DxcResult DxcResult;
struct DxcResult {
    const struct {
        void *query_interface, *add_ref;
        ULONG (WINAPI *release)(DxcResult *);
        HRESULT (WINAPI *get_status)(DxcResult *, HRESULT *);
        void *get_result;
        HRESULT (WINAPI *get_errors)(DxcResult *, ID3DBlob **);
    } *methods;
};
typedef struct DxcCompiler DxcCompiler;
struct DxcCompiler {
    const struct {
        void *query_interface, *add_ref, *release;
        HRESULT (WINAPI *compile)(DxcCompiler *, const DxcBuffer *, const wchar_t **, UINT, void *,
                                  const GUID *, DxcResult **);
    } *methods;
};
static const GUID CLASS_COMPILER = {0x73e22d93, 0xe6ce, 0x47f3, {0xb5, 0xbf, 0xf0, 0x66, 0x4f, 0x39, 0xc1, 0xb0}};
static const GUID COMPILER_3 = {0x228b4687, 0x5a6a, 0x4730, {0x90, 0x0c, 0x97, 0x02, 0xb2, 0x20, 0x3f, 0x54}};
static const GUID RESULT = {0x58346cda, 0xdde7, 0x4497, {0x94, 0x61, 0x6f, 0x87, 0xaf, 0x5e, 0x06, 0x59}};
#define UTF8 65001

static void fail(const char *what) {
    printf("%s: error %lu\n", what, GetLastError());
    exit(2);
}

/* On one line: backslashes and line ends escaped, other control characters dropped. */
static void print_escaped(const char *text, size_t size) {
    for (size_t i = 0; i < size && text[i]; i++) {
        if (text[i] == '\n') fputs("\\n", stdout);
        else if (text[i] == '\\') fputs("\\\\", stdout);
        else if ((unsigned char)text[i] >= ' ' || text[i] == '\t') putchar(text[i]);
    }
}

static void print_result(HRESULT status, ID3DBlob *errors) {
    if (SUCCEEDED(status)) fputs("OK", stdout);
    else if (errors && ID3D10Blob_GetBufferSize(errors) > 1)
        print_escaped(ID3D10Blob_GetBufferPointer(errors), ID3D10Blob_GetBufferSize(errors));
    else printf("status %08lx", (unsigned long)status);
}

static void print_version(const char *library) {
    VS_FIXEDFILEINFO *info;
    UINT length;
    DWORD size = GetFileVersionInfoSizeA(library, NULL);
    char *data = malloc(size + 1);
    if (!size || !GetFileVersionInfoA(library, 0, size, data) || !VerQueryValueA(data, "\\", (void **)&info, &length))
        fail("the library's version");
    printf("%u.%u.%u.%u\n", HIWORD(info->dwFileVersionMS), LOWORD(info->dwFileVersionMS),
           HIWORD(info->dwFileVersionLS), LOWORD(info->dwFileVersionLS));
    free(data);
}

static char *read_file(const char *name, size_t *size) {
    FILE *file = fopen(name, "rb");
    char *text = NULL;
    if (!file) return NULL;
    if (!fseek(file, 0, SEEK_END)) {
        *size = ftell(file);
        rewind(file);
        text = malloc(*size + 1);
        if (text && fread(text, 1, *size, file) != *size) {
            free(text);
            text = NULL;
        }
    }
    fclose(file);
    return text;
}

int main(int count, char **arguments) {
    if (count != 4) fail("usage: hlsl_driver dxc|fxc LIBRARY TARGET < names");
    const char *library = arguments[2], *target = arguments[3];
    HMODULE module = LoadLibraryA(library);
    if (!module) fail(library);

    DxcCompiler *dxc = NULL;
    pD3DCompile fxc = NULL;
    wchar_t wide_target[16] = {0};
    MultiByteToWideChar(CP_UTF8, 0, target, -1, wide_target, 15);
    if (!strcmp(arguments[1], "dxc")) {
        HRESULT (WINAPI *create)(const GUID *, const GUID *, void **) = (void *)GetProcAddress(module, "DxcCreateInstance");
        if (!create || FAILED(create(&CLASS_COMPILER, &COMPILER_3, (void **)&dxc))) fail("DxcCreateInstance");
    } else {
        fxc = (pD3DCompile)(void *)GetProcAddress(module, "D3DCompile");
        if (!fxc) fail("D3DCompile");
    }

    print_version(library);
    char name[4096];
    while (fgets(name, sizeof name, stdin)) {
        size_t size;
        name[strcspn(name, "\r\n")] = 0;
        printf("%s\t", name);
        fflush(stdout);
        char *text = read_file(name, &size);
        ID3DBlob *code = NULL, *errors = NULL;
        if (!text) {
            fputs("the file cannot be read", stdout);
        } else if (dxc) {
            const wchar_t *options[] = {L"-E", L"main", L"-T", wide_target, L"-HV", L"2018", L"-no-warnings", L"-Ges"};
            DxcBuffer source = {text, size, UTF8};
            DxcResult *result = NULL;
            HRESULT status = dxc->methods->compile(dxc, &source, options, 8, NULL, &RESULT, &result);
            if (SUCCEEDED(status)) {
                result->methods->get_status(result, &status);
                result->methods->get_errors(result, &errors);
                result->methods->release(result);
            }
            print_result(status, errors);
        } else {
            HRESULT status = fxc(text, size, name, NULL, NULL, "main", target, D3DCOMPILE_ENABLE_STRICTNESS, 0,
                                 &code, &errors);
            print_result(status, errors);
        }
        if (code) ID3D10Blob_Release(code);
        if (errors) ID3D10Blob_Release(errors);
        free(text);
        putchar('\n');
        fflush(stdout);
    }
    return 0;
}
