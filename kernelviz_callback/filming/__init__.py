"""The filters of a training through time: film strips, animations, videos."""
