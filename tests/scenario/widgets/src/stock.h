#ifndef STOCK_H
#define STOCK_H

#include <stddef.h>

#include "widget.h"

struct stock_line {
	struct widget widget;
	unsigned pieces;
};

unsigned long stock_value_cents(const struct stock_line *lines, size_t count);

#endif
