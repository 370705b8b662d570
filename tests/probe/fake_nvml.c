/* A stand-in for NVIDIA's libnvidia-ml.so.1, so that the reader is tested through the real pynvml without a GPU.
 *
 * Three GPUs: two A100s and a T4 behind them. GPU 0 runs hot all the time and GPU 1 sits at its power limit (their
 * counters run twice as fast as time does, so that no jitter shows); process 1 has memory on GPU 1. What is not defined
 * here is what an old driver does not know.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };
#define GPU(handle) ((int)(intptr_t)(handle) - 1)

struct memory { unsigned long long total, free, used; };
struct process { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };
struct field { uint32_t id, scope; int64_t timestamp, latency; int type, result; union { double d; unsigned long long u; } value; };

static unsigned long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)(intptr_t)(index + 1); return SUCCESS; }
int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) { snprintf(text, size, "GPU-%da2b", GPU(handle)); return SUCCESS; }
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    snprintf(text, size, "%s", GPU(handle) < 2 ? "NVIDIA A100-SXM4-80GB" : "Tesla T4");
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory) {
    memory->total = (GPU(handle) < 2 ? 80ull : 16ull) << 30;
    memory->used = (unsigned long long)(GPU(handle) + 1) << 30;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) { *milliwatts = 400000; return SUCCESS; }
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) { *milliwatts = 399000; return SUCCESS; }
int nvmlDeviceGetClockInfo(void *handle, int type, unsigned *mhz) { *mhz = 1155; return SUCCESS; }
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) { *celsius = 71; return SUCCESS; }
int nvmlDeviceGetTotalEccErrors(void *handle, int type, int counter, unsigned long long *count) { return NOT_SUPPORTED; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, struct process *processes) {
    unsigned running = GPU(handle) == 1, size = *count;
    *count = running;
    if (size < running) return INSUFFICIENT_SIZE;
    if (running) processes[0] = (struct process){.pid = 1, .used = 1 << 20};
    return SUCCESS;
}
int nvmlDeviceGetFieldValues(void *handle, int count, struct field *fields) {
    for (int i = 0; i < count; i++) {
        fields[i].result = fields[i].id <= 77 ? SUCCESS : NOT_SUPPORTED;
        fields[i].value.u = 0;
        if (fields[i].id == 75 && GPU(handle) == 0) fields[i].value.u = 2 * now(); /* thermal policy */
        if (fields[i].id == 74 && GPU(handle) == 1) fields[i].value.u = 2 * now(); /* power policy */
    }
    return SUCCESS;
}
