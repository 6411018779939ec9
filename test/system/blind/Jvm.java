// SPDX-License-Identifier: MIT
//
// Jvm KIND: a JVM with much memory, for three different reasons.
//   direct  256 MiB in direct buffers, outside of a Java heap that is small
//   live    200 MiB of records in the Java heap, in use
//   kept    there were 300 MiB of records for a moment; the heap is empty, and -Xms says that the
//           JVM keeps it
// Go  none
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;

public final class Jvm {
    private static final int MIB = 1 << 20;

    private static List<Object> direct(int count) {
        List<Object> buffers = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            ByteBuffer buffer = ByteBuffer.allocateDirect(MIB);
            while (buffer.remaining() >= 8) {
                buffer.putLong(ThreadLocalRandom.current().nextLong());
            }
            buffers.add(buffer);
        }
        return buffers;
    }

    private static List<Object> records(int count) {
        List<Object> records = new ArrayList<>();
        for (int i = 0; i < count * 512; i++) {
            byte[] record = new byte[2048 - 16];
            ThreadLocalRandom.current().nextBytes(record);
            records.add(record);
        }
        return records;
    }

    private static long used() {
        return Runtime.getRuntime().totalMemory() - Runtime.getRuntime().freeMemory();
    }

    public static void main(String[] args) throws Exception {
        Thread watch = new Thread(() -> {
            try {
                Thread.sleep(120000);
            } catch (InterruptedException e) {
                return;
            }
            Runtime.getRuntime().halt(0);
        });
        watch.setDaemon(true);
        watch.start();
        long bytes = 0;
        List<Object> held = null;
        if (args[0].equals("direct")) {
            held = direct(256);
            bytes = 256L * MIB;
        } else if (args[0].equals("live")) {
            held = records(200);
            bytes = 200L * MIB;
        } else {
            held = records(300);
            held = null;
            bytes = used();
            System.gc();
            bytes -= used();
        }
        System.out.println("ready bytes=" + bytes);
        while (System.in.read() >= 0) {
        }
        if (held != null && held.isEmpty()) {
            System.out.println("empty");
        }
        System.exit(0);
    }
}
