/* A stand-in for NVIDIA's libnvidia-ml.so.1, so that the reader is tested through the real pynvml without a GPU.
 *
 * Three GPUs: two A100s and a T4 behind them. GPU 0 runs hot all the time and GPU 1 sits at its power limit (their
 * counters run twice as fast as time does, so that no jitter shows); process 1 has memory on GPU 1.
 *
 * Built with -DOLD=1 it is a driver before 510, which knows some functions by their older names and MIG not at all; with
 * -DOLD=2 one that does not know those either.
 *
 * Switches, in the environment:
 *   FAKE_GPUS=1         number of GPUs
 *   FAKE_PIDS=645400,0  the processes on every GPU and instance, as the driver numbers them
 *   FAKE_MIG=2          GPU 0 is in MIG mode and has so many instances of profile 1g.10gb
 *   FAKE_MIG_NAMES=old  their names are the whole GPU's
 *   FAKE_COOL=1         no GPU is slowed
 *   FAKE_UNIFIED=1      the GPUs have no memory of their own
 *   FAKE_LOST=1         this GPU has fallen off the bus
 *   FAKE_ECC=3          uncorrected ECC errors of every GPU; without it no GPU counts them
 *   FAKE_HELD=271       every counter of slowdowns is known, and this one runs, on every GPU
 *   FAKE_REASONS=64     what holds the clocks now, on every GPU
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, LOST = 15 };
#define GPU(handle) ((int)(intptr_t)(handle) - 1)
#define INSTANCE(handle) ((int)(intptr_t)(handle) - 100) /* of GPU 0; negative for a whole GPU */

static int number(const char *name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }

static int lost(void *handle) { return getenv("FAKE_LOST") && GPU(handle) == number("FAKE_LOST", -1); }
#define REACH(handle) do { if (lost(handle)) return LOST; } while (0)
#ifndef OLD
#define OLD 0
#endif

struct memory { unsigned long long total, free, used; };
struct process { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };
struct attributes { unsigned multiprocessors, copy, decoders, encoders, jpeg, ofa, slices, compute_slices; unsigned long long megabytes; };
struct field { uint32_t id, scope; int64_t timestamp, latency; int type, result; union { double d; unsigned long long u; } value; };

static unsigned long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

int nvmlInit(void) { return SUCCESS; } /* what torch calls */
int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = number("FAKE_GPUS", 3); return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    *handle = (void *)(intptr_t)(index + 1);
    REACH(*handle);
    return SUCCESS;
}
int nvmlDeviceGetHandleByUUID(const char *text, void **handle) {
    if (strncmp(text, "MIG-", 4) || atoi(text + 4) >= number("FAKE_MIG", 0)) return NOT_FOUND;
    *handle = (void *)(intptr_t)(100 + atoi(text + 4));
    return SUCCESS;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    REACH(handle);
    if (INSTANCE(handle) >= 0) snprintf(text, size, "MIG-%d", INSTANCE(handle));
    else snprintf(text, size, "GPU-%da2b", GPU(handle));
    return SUCCESS;
}
#if !OLD
int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    if (!getenv("FAKE_MIG")) return NOT_SUPPORTED;
    *current = *pending = GPU(handle) == 0;
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) { *count = 7; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **instance) {
    if (number("FAKE_MIG", 0) <= (int)index) return NOT_FOUND;
    *instance = (void *)(intptr_t)(100 + index);
    return SUCCESS;
}
int nvmlDeviceIsMigDeviceHandle(void *handle, unsigned *answer) { *answer = INSTANCE(handle) >= 0; return SUCCESS; }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *instance, void **handle) {
    if (INSTANCE(instance) < 0) return INVALID_ARGUMENT;
    *handle = (void *)(intptr_t)1;
    return SUCCESS;
}
int nvmlDeviceGetAttributes_v2(void *handle, struct attributes *attributes) {
    if (INSTANCE(handle) < 0) return INVALID_ARGUMENT;
    *attributes = (struct attributes){.multiprocessors = 14, .slices = 1, .compute_slices = 1, .megabytes = 9728};
    return SUCCESS;
}
#endif
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    REACH(handle);
    const char *name = GPU(handle) < 2 || INSTANCE(handle) >= 0 ? "NVIDIA A100-SXM4-80GB" : "Tesla T4";
    if (getenv("FAKE_UNIFIED")) name = "NVIDIA GB10";
    snprintf(text, size, "%s%s", name, INSTANCE(handle) >= 0 && !getenv("FAKE_MIG_NAMES") ? " MIG 1g.10gb" : "");
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory) {
    REACH(handle);
    if (getenv("FAKE_UNIFIED")) return NOT_SUPPORTED;
    if (INSTANCE(handle) >= 0) {
        *memory = (struct memory){.total = 9728ull << 20, .used = 1ull << 30, .free = 8704ull << 20};
        return SUCCESS;
    }
    memory->total = (GPU(handle) < 2 ? 80ull : 16ull) << 30;
    memory->used = (unsigned long long)(GPU(handle) + 1) << 30;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) { *milliwatts = 400000; return SUCCESS; }
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) { *milliwatts = 399000; return SUCCESS; }
int nvmlDeviceGetClockInfo(void *handle, int type, unsigned *mhz) { *mhz = 1155; return SUCCESS; }
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) { *celsius = 71; return SUCCESS; }
int nvmlDeviceGetTotalEccErrors(void *handle, int type, int counter, unsigned long long *count) {
    REACH(handle);
    *count = number("FAKE_ECC", 0);
    return getenv("FAKE_ECC") ? SUCCESS : NOT_SUPPORTED;
}
static int processes_on(void *handle, unsigned *count, struct process *processes) {
    REACH(handle);
    const char *pids = getenv("FAKE_PIDS") ? getenv("FAKE_PIDS") : GPU(handle) == 1 ? "1" : "";
    unsigned running = 0, size = *count;
    for (const char *pid = pids; pid && *pid; pid = strchr(pid, ',') ? strchr(pid, ',') + 1 : NULL) {
        if (running < size) processes[running] = (struct process){.pid = strtoul(pid, NULL, 10), .used = 1 << 20};
        running++;
    }
    *count = running;
    return size < running ? INSUFFICIENT_SIZE : SUCCESS;
}
#if OLD == 0
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, struct process *processes) {
    return processes_on(handle, count, processes);
}
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *reasons) {
    REACH(handle);
    *reasons = number("FAKE_REASONS", 0);
    return SUCCESS;
}
int nvmlDeviceGetFieldValues(void *handle, int count, struct field *fields) {
    REACH(handle);
    for (int i = 0; i < count; i++) {
        fields[i].result = fields[i].id <= 77 || getenv("FAKE_HELD") ? SUCCESS : NOT_SUPPORTED;
        fields[i].value.u = 0;
        if (fields[i].id == number("FAKE_HELD", 0)) fields[i].value.u = 2 * now();
        if (getenv("FAKE_COOL")) continue;
        if (fields[i].id == 75 && GPU(handle) == 0) fields[i].value.u = 2 * now(); /* thermal policy */
        if (fields[i].id == 74 && GPU(handle) == 1) fields[i].value.u = 2 * now(); /* power policy */
    }
    return SUCCESS;
}
#elif OLD == 1
int nvmlDeviceGetComputeRunningProcesses_v2(void *handle, unsigned *count, struct process *processes) {
    return processes_on(handle, count, processes);
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *reasons) {
    *reasons = number("FAKE_REASONS", 0);
    return SUCCESS;
}
#endif
